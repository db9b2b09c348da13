import { masqueradeCases } from './masquerade-rules.cases.ts';

masqueradeCases('legacy');
