# Every option of transparent_proxy and expose, on the group of count-api.
job "countdash" {
  group "api" {
    network {
      mode = "bridge"

      port "health" {
        to = -1
      }
    }

    service {
      name = "count-api"
      port = "9001"

      check {
        type     = "http"
        path     = "/health"
        expose   = true
        interval = "3s"
        timeout  = "1s"
      }

      connect {
        sidecar_service {
          proxy {
            # Paths that Envoy serves without mutual TLS, on a port of their own: Nomad excludes it from the redirect.
            expose {
              path {
                path            = "/health"
                protocol        = "http"
                local_path_port = 9001
                listener_port   = "health"
              }
            }

            transparent_proxy {
              uid                    = "1337"
              no_dns                 = true
              exclude_inbound_ports  = ["9100"]
              exclude_outbound_ports = [53, 5432]
              exclude_outbound_cidrs = ["10.0.0.0/8", "fd00::/8"]
              exclude_uids           = ["1000"]
            }
          }
        }

        # The same uid as transparent_proxy.uid: it is how the rules recognise the proxy.
        sidecar_task {
          user = "1337"
        }
      }
    }

    task "web" {
      driver = "docker"

      config {
        image          = "hashicorpdev/counter-api:v3"
        auth_soft_fail = true
      }
    }
  }

  group "dashboard" {
    network {
      mode = "bridge"

      port "http" {
        static = 9002
        to     = 9002
      }
    }

    service {
      name = "count-dashboard"
      port = "9002"

      connect {
        sidecar_service {
          proxy {
            transparent_proxy {}
          }
        }
      }
    }

    task "dashboard" {
      driver = "docker"

      config {
        image          = "hashicorpdev/counter-dashboard:v3"
        auth_soft_fail = true
      }

      env {
        COUNTING_SERVICE_URL = "http://count-api.virtual.consul"
      }
    }
  }
}
