/**
 * Runs a plugin, or `weft`, from source:
 *
 *     CNI_COMMAND=VERSION node cli/dev.ts bridge
 *     WEFT_DEBUG=1 CNI_COMMAND=ADD CNI_CONTAINERID=c1 CNI_NETNS=/run/netns/c1 CNI_IFNAME=eth0 CNI_PATH=dist/bin node cli/dev.ts bridge < conf
 *     node cli/dev.ts weft show --help
 *
 * With Node 26. Delegates (host-local of bridge) are the executables in CNI_PATH.
 */
import { main } from './main.ts';

const [name = '', ...argv] = process.argv.slice(2);
process.exitCode = await main(name, argv);
