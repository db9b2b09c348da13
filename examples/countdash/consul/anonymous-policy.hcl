# DNS queries of allocations carry no token: the anonymous token must read services and nodes, or names do not resolve.
#   consul acl policy create -name dns -rules @anonymous-policy.hcl
#   consul acl token update -id anonymous -append-policy-name dns
node_prefix "" {
  policy = "read"
}

service_prefix "" {
  policy = "read"
}
