"""Names a manager's certificate is made out for, which its clients verify (wire/PROTOCOL 0.2)."""

MANAGER_NAME = "swarm-manager"
CA_NAME = "swarm-ca"
