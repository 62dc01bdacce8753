"""The pure floor: consensus, store, certificates and every decision. No I/O, clock or chance."""
