"""Values that independent implementations gave, and the scripts that wrote them down."""
