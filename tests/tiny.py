"""The one tiny configuration of all suites."""

# A model and a planner that cost next to nothing and still have every part.
TINY = {
    "model.enc_dim": 16,
    "model.mlp_dim": 16,
    "model.latent_dim": 16,
    "planner.num_samples": 16,
    "planner.num_elites": 4,
    "planner.num_pi_trajs": 2,
    "planner.iterations": 2,
    "update.batch_size": 8,
    "data.capacity": 20_000,
}
