# Nomad agent, server and client on one host, beside the Consul agent of ../consul/server.hcl: nomad agent -config=agent.nomad.hcl
data_dir = "/var/lib/nomad"

server {
  enabled          = true
  bootstrap_expect = 1
}

client {
  enabled  = true
  cni_path = "/opt/cni/bin"
}

plugin "raw_exec" {
  config {
    enabled = true
  }
}

consul {
  # Without a scheme: CONSUL_HTTP_ADDR or an address with one breaks the sidecars.
  address      = "127.0.0.1:8500"
  grpc_address = "127.0.0.1:8502"

  # With TLS on Consul's gRPC port (../consul/tls.hcl):
  # grpc_address = "127.0.0.1:8503"
  # grpc_ca_file = "/etc/consul.d/consul-agent-ca.pem"
}
