import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { hostFigures } from '../../../../agent/metrics/figures.ts';
import { createMetrics, type Figures } from '../../../../agent/metrics/registry.ts';
import { suite } from '../../../support/suite.ts';
import { violations } from '../../../support/prometheus.ts';

const test = suite('metrics in the text format of Prometheus');

const PACKAGING = resolve(import.meta.dirname, '../../../../packaging/prometheus');
const one = (value: number, labels = {}): Figures['weft_leaked_containers'] => [{ labels, value }];
const FIGURES: Figures = {
  weft_build_info: one(1, { version: '2.0.0', release: 'abc' }),
  weft_attachments: one(3, { network: 'a "quoted" \\ name\n', state: 'running' }),
  weft_port_mappings: [],
  weft_addresses_used: [],
  weft_addresses_free: [],
  weft_leaked_containers: one(2),
  weft_ruleset_generation: one(4_294_967_295),
  weft_collected_containers_total: one(5),
  weft_collection_failures_total: [],
  weft_repair_looks_total: one(1),
  weft_repairs_total: one(1),
  weft_repaired_pieces_total: one(1),
  weft_repair_pauses_total: one(0),
  process_resident_memory_bytes: one(5e7),
  process_cpu_seconds_total: one(1.5),
  process_start_time_seconds: one(1.7e9),
};

test('every metric has help, type and valid samples; a figure is replaced, a call adds up', async () => {
  const metrics = createMetrics();
  assert.match(metrics.contentType, /^text\/plain; version=0\.0\.4/);
  for (const seconds of [0.002, 0.03])
    metrics.observe({ plugin: 'bridge', verb: 'ADD', result: 'ok', seconds });
  await metrics.text(FIGURES);
  const text = await metrics.text({ ...FIGURES, weft_leaked_containers: one(7) });
  assert.equal(violations(text), []);
  assert.match(text, /^weft_leaked_containers 7$/m);
  assert.match(text, /^weft_collected_containers_total 5$/m);
  assert.match(text, /^weft_attachments\{network="a \\"quoted\\" \\\\ name\\n",state="running"\} 3$/m);
  const labels = 'plugin="bridge",verb="ADD",result="ok"';
  assert.ok(text.includes(`weft_call_duration_seconds_count{${labels}} 2\n`));
  assert.ok(text.includes(`weft_call_duration_seconds_bucket{le="0.0025",${labels}} 1\n`));
  assert.ok(text.includes(`weft_call_duration_seconds_bucket{le="+Inf",${labels}} 2\n`));
});

test('the rules of the format are checked: each of these texts breaks one', () => {
  const good = '# HELP a_total A.\n# TYPE a_total counter\na_total{x="1"} 1\n';
  assert.equal(violations(good), []);
  for (const bad of [
    good.replace('# HELP a_total A.\n', ''),
    good.replace('# TYPE a_total counter\n', ''),
    good.replaceAll('a_total', 'a'),
    good.replace('counter', 'gauge'),
    good.replace(' 1\n', ' x\n'),
    good.replace('x="1"', 'x=1'),
    `${good}a_total{x="1"} 2\n`,
    good.trimEnd(),
  ])
    assert.is.not(violations(bad).length, 0, bad);
});

test('the alert rules and the dashboard ask for metrics that exist', async () => {
  const metrics = createMetrics();
  metrics.observe({ plugin: 'bridge', verb: 'ADD', result: 'ok', seconds: 1 });
  const samples = new Set((await metrics.text(FIGURES)).match(/^# TYPE \S+/gm)?.map((line) => line.slice(7)));
  for (const file of ['alerts.yml', 'dashboard.json']) {
    const text = readFileSync(`${PACKAGING}/${file}`, 'utf8');
    const asked = new Set(
      text.match(/\b(weft|process)_\w+/g)?.map((name) => name.replace(/_(bucket|count)$/, '')),
    );
    assert.ok(asked.size > 5);
    assert.equal(
      [...asked].filter((name) => !samples.has(name)),
      [],
    );
  }
});

test('a host without attachments has no figures of networks', () => {
  assert.equal(Object.values(hostFigures([])).flat(), []);
});

test.run();
