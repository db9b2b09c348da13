# Without docker: programs of the host, and Envoy as a raw_exec sidecar_task. The user of the proxy must have uid 101, the proxy's uid of
# transparent proxy (useradd --system --uid 101 envoy), or transparent_proxy.uid must name another. To name other programs:
#   nomad job run -var envoy=/usr/bin/envoy raw-exec.nomad.hcl
variable "envoy" {
  type    = string
  default = "/usr/local/bin/envoy"
}

variable "envoy_user" {
  type    = string
  default = "envoy"
}

variable "counting_service" {
  type    = list(string)
  default = ["/usr/local/bin/counting-service"]
}

variable "dashboard_service" {
  type    = list(string)
  default = ["/usr/local/bin/dashboard-service"]
}

# exec gives the dashboard a resolv.conf with Consul's DNS; raw_exec leaves the host's, where count-api.virtual.consul does not exist.
variable "dashboard_driver" {
  type    = string
  default = "exec"
}

variable "user" {
  type    = string
  default = "nobody"
}

job "countdash" {
  group "api" {
    network {
      mode = "bridge"
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
            transparent_proxy {}
          }
        }

        sidecar_task {
          driver = "raw_exec"
          user   = var.envoy_user

          config {
            command = var.envoy
            args = [
              "-c", "${NOMAD_SECRETS_DIR}/envoy_bootstrap.json",
              "-l", "${meta.connect.log_level}",
              "--concurrency", "${meta.connect.proxy_concurrency}",
              "--disable-hot-restart",
            ]
          }
        }
      }
    }

    task "web" {
      driver = "raw_exec"
      user   = var.user

      config {
        command = var.counting_service[0]
        args    = slice(var.counting_service, 1, length(var.counting_service))
      }

      env {
        PORT = "9001"
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

        sidecar_task {
          driver = "raw_exec"
          user   = var.envoy_user

          config {
            command = var.envoy
            args = [
              "-c", "${NOMAD_SECRETS_DIR}/envoy_bootstrap.json",
              "-l", "${meta.connect.log_level}",
              "--concurrency", "${meta.connect.proxy_concurrency}",
              "--disable-hot-restart",
            ]
          }
        }
      }
    }

    task "dashboard" {
      driver = var.dashboard_driver
      user   = var.user

      config {
        command = var.dashboard_service[0]
        args    = slice(var.dashboard_service, 1, length(var.dashboard_service))
      }

      env {
        COUNTING_SERVICE_URL = "http://count-api.virtual.consul"
        PORT                 = "9002"
        CONSUL_DNS           = "${attr.unique.consul.dns.addr}"
      }
    }
  }
}
