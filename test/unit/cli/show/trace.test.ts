/** What `nft monitor trace` printed of a connection to a published port, as `weft show --trace` tells it. */
import { readFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { traceText } from '../../../../cli/show/trace.ts';
import { suite } from '../../../support/suite.ts';

const test = suite('weft show --trace: text');
const monitored = readFileSync(`${import.meta.dirname}/monitored.txt`, 'utf8');

test('each packet with the verdict of each chain; another id on the way, and an id that is used again', () => {
  const packets = traceText(monitored).split('\n\n');
  assert.equal(
    packets.map((text) => text.split('\n')[0]),
    [
      'iif "up0" ip saddr 192.0.2.9 ip daddr 192.0.2.1 ip protocol tcp tcp sport 37556 tcp dport 9002 tcp flags == syn tcp window 64240',
      'iif "nomad" ip saddr 172.26.64.2 ip daddr 192.0.2.9 ip protocol tcp tcp sport 80 tcp dport 37556 tcp flags == 0x12 tcp window 65160',
      'iif "up0" ip saddr 192.0.2.9 ip daddr 192.0.2.1 ip protocol tcp tcp sport 37556 tcp dport 9002 tcp flags == ack tcp window 63',
    ],
  );
  const [first = '', reply = '', again = ''] = packets;
  assert.match(
    first,
    /\n {2}ip nat CNI-DN-\w+ rule meta l4proto tcp tcp dport 9002 dnat to 172\.26\.64\.2:80 \(verdict accept\)\n/,
  );
  assert.match(first, /\n {2}ip filter FORWARD policy accept\n/);
  assert.match(reply, /\n {2}ip filter CNI-FORWARD rule ip saddr 172\.26\.64\.2 accept \(verdict accept\)$/);
  assert.match(again, /ct state related,established accept \(verdict accept\)/);
  assert.not.match(packets.join(), /weft_trace|counter/);
});

test('nothing seen', () => assert.is(traceText(''), 'no packets\n'));

test.run();
