/** What `nft monitor trace` printed of a connection to a published port, as `weft show --trace` tells it. */
import { readFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { traceText } from '../../../../cli/show/trace-packets.ts';
import { suite } from '../../../support/suite.ts';

const test = suite('weft show --trace: text');
const TABLE = { family: 'inet', name: 'weft_trace_7' } as const;
const OTHER = { family: 'inet', name: 'weft_trace_71' } as const;
const monitored = readFileSync(`${import.meta.dirname}/monitored.txt`, 'utf8');

test('each packet with the verdict of each chain; another id on the way, and an id that is used again', () => {
  const packets = traceText(monitored, TABLE).split('\n\n');
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

test('another trace on the host: packets of each are told by the rule that marked them', () => {
  const link = 'ether saddr 02:00:00:00:00:01 ether daddr 02:00:00:00:00:02';
  const header = (source: string): string =>
    `packet: iif "br0" ${link} ip saddr ${source} ip daddr 192.0.2.1 ip dscp cs0 ip ecn not-ect ip ttl 64 ip id 1 ip protocol tcp ip length 60 tcp dport 80 @th,64,96 0xc5`;
  const marked = 'meta nftrace set 1 (verdict continue)';
  const lines = `
trace id 1 inet weft_trace_71 prerouting ${header('10.0.0.2')}
trace id 1 inet weft_trace_71 prerouting rule ip daddr 192.0.2.1 ${marked}
trace id 1 inet weft_trace_71 prerouting policy accept
trace id 1 inet weft_trace_7 prerouting ${header('10.0.0.2')}
trace id 1 inet weft_trace_7 prerouting rule ip saddr 10.0.0.2 ${marked}
trace id 1 inet weft_trace_7 prerouting policy accept
trace id 1 ip filter FORWARD packet: iif "br0" oif "eth0" ip saddr 10.0.0.2
trace id 1 ip filter FORWARD rule counter drop (verdict drop)
trace id 1 inet weft_trace_71 prerouting ${header('10.0.0.3')}
trace id 1 inet weft_trace_71 prerouting rule ip daddr 192.0.2.1 ${marked}
trace id 1 ip filter FORWARD packet: iif "br0" oif "eth0" ip saddr 10.0.0.3
trace id 1 ip filter FORWARD policy accept
trace id 2 inet weft_trace_71 prerouting ${header('10.0.0.4')}
trace id 2 inet weft_trace_71 prerouting rule ip saddr 10.0.0.4 ${marked}
trace id 2 inet weft_trace_7 prerouting ${header('10.0.0.4')}
trace id 2 inet weft_trace_7 prerouting policy accept
trace id 2 ip filter FORWARD policy accept
`;
  const told = (source: string, verdict: string): string =>
    `iif "br0" ip saddr ${source} ip daddr 192.0.2.1 ip protocol tcp tcp dport 80\n  ip filter FORWARD ${verdict}\n`;
  const dropped = told('10.0.0.2', 'rule counter drop (verdict drop)');
  assert.is(traceText(lines, TABLE), dropped);
  const others = [dropped, told('10.0.0.3', 'policy accept'), told('10.0.0.4', 'policy accept')];
  assert.is(traceText(lines, OTHER), others.join('\n'));
});

test('nothing seen', () => assert.is(traceText('', TABLE), 'no packets\n'));

test.run();
