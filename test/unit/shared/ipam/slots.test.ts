import * as assert from 'uvu/assert';
import { KEY_BYTES, MemorySlots, SlotTable, VALUE_BYTES } from '../../../../shared/ipam/catalog.ts';
import { suite } from '../../../support/suite.ts';

const test = suite('slot table');

test('behaves like a list of pairs through random additions and removals, up to a full table', () => {
  for (const capacity of [2, 8, 64, 256]) {
    const table = new SlotTable(new MemorySlots(capacity), 0);
    const model: [number, number][] = [];
    for (let step = 0; step < 4000; step++) {
      const key = 1 + Math.floor(Math.random() * capacity);
      const value = 1 + Math.floor(Math.random() * 3);
      const at = model.findIndex(([otherKey, otherValue]) => otherKey === key && otherValue === value);
      if (Math.random() < 0.5 && model.length < capacity - 1) {
        table.add(bytes(key, KEY_BYTES), bytes(value, VALUE_BYTES));
        model.push([key, value]);
      } else {
        assert.is(table.remove(bytes(key, KEY_BYTES), bytes(value, VALUE_BYTES)), at >= 0);
        if (at >= 0) model.splice(at, 1);
      }
      assert.is(table.used, model.length);
      const expected = model.filter(([otherKey]) => otherKey === key).map(([, otherValue]) => otherValue);
      assert.equal(table.values(bytes(key, KEY_BYTES)).map(numberOf).sort(), expected.sort());
    }
    for (const [key, value] of model)
      assert.ok(table.remove(bytes(key, KEY_BYTES), bytes(value, VALUE_BYTES)));
    assert.is(table.used, 0);
  }
});

test('update changes the value of a key, adds it, removes it', () => {
  const table = new SlotTable(new MemorySlots(8), 0);
  const key = bytes(5, KEY_BYTES);
  const seen: (number | undefined)[] = [];
  const set = (value: number | undefined): void =>
    table.update(key, (before) => {
      seen.push(before === undefined ? undefined : numberOf(before));
      return value === undefined ? undefined : bytes(value, VALUE_BYTES);
    });
  set(undefined);
  assert.is(table.used, 0);
  set(1);
  set(2);
  assert.equal(table.values(key).map(numberOf), [2]);
  assert.is(table.used, 1);
  set(undefined);
  assert.is(table.used, 0);
  assert.equal(seen, [undefined, undefined, 1, 2]);
});

test('refuses to fill the last slot, which ends every search', () => {
  const table = new SlotTable(new MemorySlots(2), 0);
  table.add(bytes(1, KEY_BYTES), bytes(1, VALUE_BYTES));
  assert.ok(!table.isCrowded);
  assert.throws(() => table.add(bytes(2, KEY_BYTES), bytes(1, VALUE_BYTES)), /full/);
});

test.run();

function bytes(number: number, length: number): Uint8Array {
  const array = new Uint8Array(length);
  new DataView(array.buffer).setUint32(length - 4, number);
  return array;
}

function numberOf(value: Uint8Array): number {
  return new DataView(value.buffer, value.byteOffset).getUint32(value.length - 4);
}
