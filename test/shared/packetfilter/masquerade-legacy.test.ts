import { masqueradeCases } from './masquerade.cases.ts';

masqueradeCases('legacy');
