"""`glowplug doctor`: small checks of a cluster, each a finding that says what to do."""
