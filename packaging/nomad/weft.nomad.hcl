# Installs the plugins on every Linux client, one client after the other: docs/operate/rollout.md.
#
#     nomad job run -var url=https://example.com/weft-2.0.0-linux-x64.tar.gz -var checksum=sha256:... weft.nomad.hcl
#     nomad job revert weft 0      # back to the release of version 0 of this job
#     nomad job run -var remove=true ...; nomad job stop weft
#
# The clients need the plugin raw_exec: the task writes to /opt/cni/bin as root, in the host's own namespaces.

variable "url" {
  type        = string
  description = "tarball of `npm run package`, reachable from every client"
}

variable "checksum" {
  type        = string
  description = "its line in SHA256SUMS, as sha256:HEX"
}

variable "directory" {
  type        = string
  description = "name of the directory in the tarball"
  default     = "weft-2.0.0-linux-x64"
}

variable "arch" {
  type        = string
  description = "architecture of the tarball, as Nomad names it"
  default     = "amd64"
}

variable "agent" {
  type        = bool
  description = "install launchers; run weft-agent.nomad.hcl or the systemd unit as well"
  default     = false
}

variable "remove" {
  type        = bool
  description = "put the files from before Weft back"
  default     = false
}

job "weft" {
  type     = "system"
  priority = 95

  constraint {
    attribute = "${attr.kernel.name}"
    value     = "linux"
  }

  constraint {
    attribute = "${attr.cpu.arch}"
    value     = var.arch
  }

  # A client counts as healthy when "weft doctor" has found no error on it; only then the next one follows.
  update {
    max_parallel      = 1
    health_check      = "task_states"
    min_healthy_time  = "10s"
    healthy_deadline  = "3m"
    progress_deadline = "10m"
    auto_revert       = true
  }

  group "install" {
    restart {
      attempts = 2
      interval = "5m"
      delay    = "5s"
      mode     = "fail"
    }

    task "install" {
      driver = "raw_exec"
      user   = "root"

      lifecycle {
        hook    = "prestart"
        sidecar = false
      }

      artifact {
        source      = var.url
        destination = "local/"

        options {
          checksum = var.checksum
        }
      }

      config {
        command = "local/${var.directory}/weft"
        args    = var.remove ? ["uninstall"] : concat(["install"], var.agent ? ["--agent"] : [])
      }

      resources {
        cpu    = 200
        memory = 256
      }
    }

    # Stays as long as the node is healthy: exit status 2 of doctor is an error, 1 a warning.
    task "doctor" {
      driver = "raw_exec"
      user   = "root"

      config {
        command = "/bin/sh"
        args = ["-c", var.remove ? "exec sleep infinity" : <<-SCRIPT
          weft=/usr/local/bin/weft
          "$weft" doctor; status=$?
          [ "$status" -lt 2 ] || exit "$status"
          while sleep 300; do "$weft" doctor; done
          SCRIPT
        ]
      }

      resources {
        cpu    = 50
        memory = 128
      }
    }
  }
}
