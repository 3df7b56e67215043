"""What several algorithms share: training on losses per token, experience, policy gradients."""
