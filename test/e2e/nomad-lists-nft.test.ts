import { testNomadLists } from './support/nomad-lists.ts';

testNomadLists('nft');
