# The demo's only intention. With default_policy "deny", or with Action = "deny" for "*", nothing else may call count-api.
#   consul config write intention.hcl
Kind = "service-intentions"
Name = "count-api"

Sources = [
  {
    Name   = "count-dashboard"
    Action = "allow"
  },
  {
    Name   = "*"
    Action = "deny"
  },
]
