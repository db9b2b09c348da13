# One Consul server without "-dev": consul agent -config-file=server.hcl
data_dir         = "/var/lib/consul"
server           = true
bootstrap_expect = 1
bind_addr        = "{{ GetPrivateIP }}"

addresses {
  dns = "{{ GetPrivateIP }}"
}

# Envoy gets its configuration over gRPC; without "-dev" the port is off.
ports {
  grpc = 8502
}

connect {
  enabled = true
}

recursors = ["1.1.1.1", "8.8.8.8"]
