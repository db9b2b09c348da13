import { readArgs } from '../../shared/cni/args.ts';
import { CniCode, CniError } from '../../shared/cni/errors.ts';
import { decodeRequest, HOST_NAME_FILES } from './decode-request.ts';
import type { ProxyRequest } from './request.ts';

/** consul-cni reads the first; its successor for nftables is announced with the second, of the same shape. */
const CONFIG_KEYS = ['CONSUL_NFTABLES_CONFIG', 'CONSUL_IPTABLES_CONFIG'] as const;
const KUBERNETES_KEYS = ['K8S_POD_NAME', 'K8S_POD_NAMESPACE', 'K8S_POD_INFRA_CONTAINER_ID'] as const;

/**
 * What the job asks for, out of CNI_ARGS. A sender that gives both keys means the newer one; the older is there for older plugins.
 * @throws CniError 4 or 6, naming every problem
 */
export function readProxyRequest(args: string | undefined, notice: (line: string) => void): ProxyRequest {
  const found = readArgs(args, [...CONFIG_KEYS, ...KUBERNETES_KEYS]);
  const given = CONFIG_KEYS.filter((key) => (found.get(key) ?? '') !== '');
  const [key] = given;
  if (key === undefined) throw noRequest(found);
  const texts = given.map((name) => found.get(name) ?? '');
  if (new Set(texts).size > 1) notice(`${given.join(' and ')} differ; using ${key}`);
  return decodeRequest(key, texts[0] ?? '', HOST_NAME_FILES, notice);
}

function noRequest(args: ReadonlyMap<string, string>): CniError {
  if (KUBERNETES_KEYS.slice(0, 2).every((key) => (args.get(key) ?? '') !== '')) {
    return new CniError(
      CniCode.InvalidEnvironment,
      'Kubernetes is not supported: this plugin takes its configuration from CONSUL_IPTABLES_CONFIG in CNI_ARGS, as Nomad sends it, and reads no pod',
      { details: "on Kubernetes use Consul's own consul-cni" },
    );
  }
  return new CniError(
    CniCode.InvalidEnvironment,
    'CNI_ARGS carry no CONSUL_IPTABLES_CONFIG: not running in a pod, namespace and pod should have values, nor in an allocation of Nomad',
    {
      details:
        'Nomad sends it for groups with a transparent_proxy block; a network list that other groups use, too, should not name this plugin',
    },
  );
}
