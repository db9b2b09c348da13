# ACLs, in addition to server.hcl; then: consul acl bootstrap
acl {
  enabled                  = true
  default_policy           = "deny"
  enable_token_persistence = true
}
