import { burst } from './support/burst.ts';

burst('nftables');
