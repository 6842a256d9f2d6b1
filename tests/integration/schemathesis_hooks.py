"""What schemathesis must be told to try every body that the API describes: lines of JSON are text."""

import schemathesis

schemathesis.serializer.alias("application/x-ndjson", "text/plain")
