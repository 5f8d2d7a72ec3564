"""The services as Ray Serve deployments. `services.app` binds them into one application."""
