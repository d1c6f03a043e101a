"""The ChatbotCluster object, version v1alpha1: models of spec and status, the source of the CRD."""

from chatbot_core.v1alpha1.spec import ChatbotClusterSpec
from chatbot_core.v1alpha1.status import ChatbotClusterStatus

__all__ = ["ChatbotClusterSpec", "ChatbotClusterStatus"]
