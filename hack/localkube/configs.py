"""Texts of the configuration files. Pure.

JSON wherever a server reads YAML, because JSON is YAML and the standard library
writes it without mistakes of indentation.
"""

import base64
import json
from typing import Any

from localkube.layout import NODE_IP, PAUSE_IMAGE, POD_RANGE, Instance

Document = dict[str, Any]

STORAGE_CLASS: Document = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {
        "name": "standard",
        "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
    },
    "provisioner": "kubernetes.io/host-path",
    "allowVolumeExpansion": True,
}

# Every write of every user, without bodies. One line a request, when it is answered:
# a test that counts writes must not count the same request at two stages.
AUDIT_POLICY: Document = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "Metadata", "verbs": ["create", "update", "patch", "delete", "deletecollection"]},
        {"level": "None"},
    ],
}


def kubeconfig(server: str, ca: bytes, certificate: bytes, key: bytes) -> str:
    """Return a kubeconfig for one server and one client certificate (all PEM)."""
    user = {"client-certificate-data": _base64(certificate), "client-key-data": _base64(key)}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "local",
                "cluster": {"server": server, "certificate-authority-data": _base64(ca)},
            }
        ],
        "users": [{"name": "local", "user": user}],
        "contexts": [{"name": "local", "context": {"cluster": "local", "user": "local"}}],
        "current-context": "local",
    }
    return json.dumps(document, indent=1)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def pod_network(cluster: Instance) -> str:
    """Return the CNI configuration list of the pod network.

    Plug-in `ptp`, not `bridge`: traffic pod to Service to pod on one node must be
    routed to meet the Service rules, and a bridge needs br_netfilter for that.
    """
    addresses = {
        "type": "host-local",
        "dataDir": str(cluster.state / "node" / "pod-addresses"),
        "ranges": [[{"subnet": POD_RANGE}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    plugin = {"type": "ptp", "ipMasq": False, "ipam": addresses}
    return json.dumps({"cniVersion": "0.4.0", "name": "pods", "plugins": [plugin]}, indent=1)


def containerd(cluster: Instance, plugins: str, snapshotter: str) -> str:
    """Return the container runtime's configuration (TOML).

    - restrict_oom_score_adj: without CAP_SYS_RESOURCE runc otherwise fails every
      pod with "can't get final child's PID from pipe".
    - netns_mounts_under_state_dir: pod namespaces stay out of /run/netns.
    - disable_apparmor: a loaded profile would stay in the kernel after `down`.
    """
    root = cluster.state / "node" / "containerd"
    return f"""version = 2
root = "{root}/root"
state = "{root}/state"

[grpc]
address = "{cluster.containerd_socket}"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
disable_apparmor = true

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "{snapshotter}"

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{cluster.config}/cni"

[plugins."io.containerd.internal.v1.opt"]
path = "{root}/opt"

[plugins."io.containerd.nri.v1.nri"]
disable = true
"""


def kubelet(cluster: Instance) -> str:
    """Return the kubelet's configuration.

    - cgroupDriver cgroupfs and failCgroupV1 false: works on both cgroup versions
      and without systemd.
    - localStorageCapacityIsolation false: cAdvisor does not know the file systems
      that small machines have as root.
    - eviction and image collection off: an almost full disk is the user's, and
      images that came from files could not be pulled again.
    """
    document = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(cluster.pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(cluster.pki / "node.crt"),
        "tlsPrivateKeyFile": str(cluster.pki / "node.key"),
        "containerRuntimeEndpoint": f"unix://{cluster.containerd_socket}",
        "volumePluginDir": str(cluster.state / "volume-plugins"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cluster.cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "clusterDNS": [NODE_IP],
        "clusterDomain": "cluster.local",
        "resolvConf": "",
        "maxPods": 200,
        "enforceNodeAllocatable": [],
        "evictionHard": {"memory.available": "0%", "nodefs.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        "localStorageCapacityIsolation": False,
        "makeIPTablesUtilChains": False,
        "containerLogMaxSize": "10Mi",
    }
    return json.dumps(document, indent=1)


def corefile(cluster: Instance) -> str:
    """Return the configuration of the cluster's name server.

    Short caches: a Service that is deleted and made again has a new address, and
    waiting for an old one would look like a fault of whoever asks.
    """
    return f""".:53 {{
  errors
  ready 127.0.0.1:8181
  cache 2
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {cluster.pki}/coredns.kubeconfig
    ttl 2
  }}
}}
"""


def kind_cluster(cluster: Instance) -> str:
    """Return the configuration for `kind create cluster`, with the audit log on.

    Source: the page "Auditing" of kind's user guide.
    """
    patch = {
        "kind": "ClusterConfiguration",
        "apiServer": {
            "extraArgs": {
                "audit-log-path": "/var/log/kubernetes/audit.log",
                "audit-policy-file": "/etc/kubernetes/policies/audit.json",
            },
            "extraVolumes": [
                _volume("audit-policies", "/etc/kubernetes/policies", read_only=True),
                _volume("audit-logs", "/var/log/kubernetes", read_only=False),
            ],
        },
    }
    node = {
        "role": "control-plane",
        "kubeadmConfigPatches": [json.dumps(patch)],
        "extraMounts": [
            {
                "hostPath": str(cluster.config / "audit.json"),
                "containerPath": "/etc/kubernetes/policies/audit.json",
                "readOnly": True,
            },
            {"hostPath": str(cluster.log), "containerPath": "/var/log/kubernetes"},
        ],
    }
    document = {"kind": "Cluster", "apiVersion": "kind.x-k8s.io/v1alpha4", "nodes": [node]}
    return json.dumps(document, indent=1)


def _volume(name: str, path: str, *, read_only: bool) -> Document:
    return {
        "name": name,
        "hostPath": path,
        "mountPath": path,
        "readOnly": read_only,
        "pathType": "DirectoryOrCreate",
    }


def environment_lines(kubeconfig_path: str, commands_folder: str) -> str:
    """Return shell lines for `eval` that make plain `kubectl` reach the cluster."""
    return (
        f"export KUBECONFIG={_quoted(kubeconfig_path)}\n"
        f'export PATH={_quoted(commands_folder)}:"$PATH"\n'
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def published_key(service: str) -> tuple[str, str, int]:
    """Split ``NAMESPACE/SERVICE:PORT``; raises `ValueError` when it is not that."""
    path, colon, port = service.rpartition(":")
    namespace, slash, name = path.partition("/")
    if not (colon and slash and namespace and name and port.isdigit()):
        raise ValueError(service)
    return namespace, name, int(port)
