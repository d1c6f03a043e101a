"""A local Kubernetes: the package behind ``hack/cluster``.

Standard library only, because it has to work in a fresh clone before any
virtual environment exists. The pure half (`layout`, `configs`, `servers`,
`images`, `resolver`, the plan in `build`) computes texts and command lines; the
other half runs them.

The provider ``node`` starts the real control plane and one real node as plain
processes. Everything lives in a network namespace and a mount namespace of its
own and in one cgroup: so several instances run side by side on the same fixed
ports, fixed paths of the servers lead into the instance's state folder, and
ending the instance is ending the processes of one cgroup.
"""
