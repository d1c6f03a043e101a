"""What the end-to-end tests are written in: one local cluster, chatbots on it, people asking."""
