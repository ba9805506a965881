"""The glue of all rooms: Lightning modules, data modules, callbacks, and the stages."""
