/** The part of the npm package `dns-packet` that the example uses; the package brings no types. */
declare module 'dns-packet' {
  export interface Question {
    type: string;
    name: string;
    class?: string;
  }
  export interface Answer {
    type: string;
    name: string;
    class?: string;
    ttl?: number;
    data: unknown;
  }
  export interface Packet {
    type?: 'query' | 'response';
    id?: number;
    flags?: number;
    /** Text forms of the header's flags; only set by decode. */
    opcode?: string;
    rcode?: string;
    flag_tc?: boolean;
    flag_rd?: boolean;
    questions?: Question[];
    answers?: Answer[];
    authorities?: Answer[];
    additionals?: unknown[];
  }
  const dnsPacket: {
    readonly AUTHORITATIVE_ANSWER: number;
    readonly TRUNCATED_RESPONSE: number;
    readonly RECURSION_DESIRED: number;
    readonly RECURSION_AVAILABLE: number;
    encode(packet: Packet): Buffer;
    decode(bytes: Buffer): Packet;
  };
  export default dnsPacket;
}
