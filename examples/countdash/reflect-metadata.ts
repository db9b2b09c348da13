/**
 * The functions of the decorator metadata proposal that @peculiar/x509's dependency container needs when it is loaded. Import this
 * module before that package; it changes nothing where they exist already.
 */
const store = new WeakMap<object, Map<unknown, unknown>>();

const metadataOf = (target: object): Map<unknown, unknown> => {
  const known = store.get(target);
  if (known !== undefined) return known;
  const fresh = new Map<unknown, unknown>();
  store.set(target, fresh);
  return fresh;
};

/** Metadata belongs to a class, or to one of its members: then under the pair of both. */
const place = (key: unknown, member: PropertyKey | undefined): unknown =>
  member === undefined ? key : `${String(key)}@${String(member)}`;

function getMetadata(key: unknown, target: object, member?: PropertyKey): unknown {
  for (let object: object | null = target; object !== null; object = Reflect.getPrototypeOf(object)) {
    const found = metadataOf(object).get(place(key, member));
    if (found !== undefined) return found;
  }
  return undefined;
}

const FUNCTIONS = {
  defineMetadata: (key: unknown, value: unknown, target: object, member?: PropertyKey): void => {
    metadataOf(target).set(place(key, member), value);
  },
  getOwnMetadata: (key: unknown, target: object, member?: PropertyKey): unknown =>
    metadataOf(target).get(place(key, member)),
  hasOwnMetadata: (key: unknown, target: object, member?: PropertyKey): boolean =>
    metadataOf(target).has(place(key, member)),
  hasMetadata: (key: unknown, target: object, member?: PropertyKey): boolean =>
    getMetadata(key, target, member) !== undefined,
  getMetadata,
  metadata:
    (key: unknown, value: unknown) =>
    (target: object, member?: PropertyKey): void => {
      metadataOf(target).set(place(key, member), value);
    },
};

for (const [name, value] of Object.entries(FUNCTIONS)) {
  if (!(name in Reflect)) Object.defineProperty(Reflect, name, { value, configurable: true, writable: true });
}
