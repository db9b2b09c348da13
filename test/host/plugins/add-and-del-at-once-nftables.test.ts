import { addAndDelAtOnce } from './add-and-del-at-once.cases.ts';

addAndDelAtOnce('nftables');
