# TLS, in addition to server.hcl. Consul 1.14 and newer has a port of its own for gRPC with TLS. Files: consul tls ca create;
# consul tls cert create -server
tls {
  defaults {
    ca_file         = "/etc/consul.d/consul-agent-ca.pem"
    cert_file       = "/etc/consul.d/dc1-server-consul-0.pem"
    key_file        = "/etc/consul.d/dc1-server-consul-0-key.pem"
    verify_outgoing = true
  }

  internal_rpc {
    verify_server_hostname = true
  }

  # The sidecars have no client certificate for gRPC.
  grpc {
    verify_incoming = false
  }
}

ports {
  grpc     = -1
  grpc_tls = 8503
}
