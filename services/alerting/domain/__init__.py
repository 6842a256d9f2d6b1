"""The rules of alerting, pure: a policy, a model's alerts and a snapshot in, a judgement with its reasons out."""
