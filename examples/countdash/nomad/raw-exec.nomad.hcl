# Without docker: programs of the host, and Envoy as a raw_exec sidecar_task. The user "envoy" must have uid 101, the proxy's uid of
# transparent proxy (useradd --system --uid 101 envoy), or transparent_proxy.uid must name another.
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
          user   = "envoy"

          config {
            command = "/usr/local/bin/envoy"
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
      user   = "nobody"

      config {
        command = "/usr/local/bin/counting-service"
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
          user   = "envoy"

          config {
            command = "/usr/local/bin/envoy"
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
      driver = "raw_exec"
      user   = "nobody"

      config {
        command = "/usr/local/bin/dashboard-service"
      }

      env {
        COUNTING_SERVICE_URL = "http://count-api.virtual.consul"
        PORT                 = "9002"
      }
    }
  }
}
