# For a try on one host: consul agent -dev -config-file=dev.hcl
# DNS must listen on an address that allocations can reach. "-dev" leaves it on 127.0.0.1, and Nomad then hands out no DNS address.
addresses {
  dns = "{{ GetPrivateIP }}"
}

# Names outside of the domain "consul": allocations with transparent proxy have no other name server.
recursors = ["1.1.1.1", "8.8.8.8"]
