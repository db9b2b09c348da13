# Node agent of Weft on every Linux client, in place of the systemd unit: docs/operate/agent.md.
# The clients need the plugin raw_exec, which runs the agent as root in the host's own namespaces.
job "weft-agent" {
  type     = "system"
  priority = 90

  constraint {
    attribute = "${attr.kernel.name}"
    value     = "linux"
  }

  update {
    max_parallel     = 1
    min_healthy_time = "10s"
    auto_revert      = true
  }

  group "agent" {
    restart {
      attempts = 10
      interval = "1m"
      delay    = "1s"
      mode     = "delay"
    }

    task "agent" {
      driver = "raw_exec"
      user   = "root"

      config {
        command = "/usr/local/bin/weft"
        args    = ["agent"]
      }

      kill_signal  = "SIGTERM"
      kill_timeout = "20s"

      resources {
        cpu        = 100
        memory     = 128
        memory_max = 256
      }
    }
  }
}
