"""Where a training step's time goes: `fusionrun profile`."""
