"""Experts' work in Label Studio: projects and tasks over HTTP, verdicts back, webhooks, drafts on request."""
