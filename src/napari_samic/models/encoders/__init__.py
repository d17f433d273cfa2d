"""Any timm network as an encoder, and a top-down neck over it."""
