import { addAndDelAtOnce } from './add-and-del-at-once.cases.ts';

addAndDelAtOnce('iptables-nft');
