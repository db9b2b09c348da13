import { burst } from './support/burst.ts';

burst('nft');
