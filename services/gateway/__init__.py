"""The assistant's front: REST and gRPC, validation, prompt building, composition of the services, access."""
