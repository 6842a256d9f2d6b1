"""The events that Trueward reads and writes: plain data, one module a subject.

Every contract is a frozen pydantic model. A field that a contract does not know is ignored and counted
(:func:`shared.contracts.base.unknown_fields`), never an error.
"""
