import { changedSettingsCases } from './changed-settings.cases.ts';

changedSettingsCases('legacy');
