/** The packet filter in memory passes the cases of the real ones, which test/host/shared/packetfilter/drivers runs. */
import { chooseDriver } from '../../../../shared/packetfilter/select.ts';
import { driverCases } from '../../../support/packetfilter/driver-cases.ts';
import { makeFakeHost } from '../../../support/packetfilter/fake-host.ts';
import { transactionCases } from '../../../support/packetfilter/transaction-cases.ts';
import { suite } from '../../../support/suite.ts';

const host = makeFakeHost();

const drivers = suite('iptables-nft driver on the packet filter in memory');
driverCases(drivers, {
  driver: () => chooseDriver(),
  reset: () => host.reset(),
  command: host.command,
  saved: host.saved,
  transactions: () => host.kernel.generation,
});
drivers.run();

const transactions = suite('transactions on the packet filter in memory');
transactionCases(transactions, { reset: () => host.reset(), list: host.list });
transactions.run();
