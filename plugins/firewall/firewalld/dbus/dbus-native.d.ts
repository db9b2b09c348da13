/**
 * The part of the npm package `dbus-native` that is used: messages to bytes and back, without its sockets, which are
 * asynchronous. The package has no types for it.
 */
declare module 'dbus-native/lib/message.js' {
  interface Message {
    /** 1 method call, 2 method return, 3 error, 4 signal */
    readonly type: number;
    readonly flags: number;
    readonly serial: number;
    readonly replySerial?: number;
    readonly errorName?: string;
    readonly destination?: string;
    readonly path?: string;
    readonly interface?: string;
    readonly member?: string;
    readonly signature?: string;
    readonly body?: readonly unknown[];
  }
  export function marshall(message: Message): Buffer;
  export function unmarshall(bytes: Buffer): Message;
}
