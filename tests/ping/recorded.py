"""Messages byte for byte, written from RFC 6450 and the description of ssmping's dialect; omping has the same forms."""

CLIENT = ("10.0.0.1", 40000)

INIT = bytes.fromhex(
    "49"  # Init
    "0000 0001 02"  # version 2
    "0001 0008 0102030405060708"  # client id
    "0005 0002 0006"  # asks for the server's information
    "000a 0004 0001 08 e8"  # any group of 232.0.0.0/8
)
INIT_6 = bytes.fromhex("49 0000000102 0001 0004 c0ffee00 000a 0003 0002 00 000a 0005 0002 10 ff3e")
RESPONSE = bytes.fromhex(
    "53 0000000102 0001 0008 0102030405060708"
    "0004 0006 0001 e82bd3ea"  # group 232.43.211.234
    "000b 0004 deadbeef"  # session
    "0006 0006 6f6d70696e67"  # "omping"
)
REFUSAL = bytes.fromhex("53 0000000102 0001 0008 0102030405060708 000a 0004 0001 08 ef")
OTHER_VERSION = bytes.fromhex("53 0000000103 0001 0008 0102030405060708")
QUERY = bytes.fromhex(
    "51 0000000102 0001 0008 0102030405060708"
    "0002 0004 00000001"  # sequence
    "0003 0008 6553f100 0001e240"  # 1700000000.123456
    "0004 0006 0001 e82bd3ea 000b 0004 deadbeef 0005 0002 000c"
)
ANSWER = bytes.fromhex(
    "41 0000000102 0001 0008 0102030405060708 0002 0004 00000001 0003 0008 6553f100 0001e240"
    "0004 0006 0001 e82bd3ea 0005 0002 000c 0009 0001 40 000c 0008 6553f100 0001e250"
)
OLD_QUERY = bytes.fromhex(
    "51"
    "0001 0004 00001234"  # process id
    "0002 0004 00000001 0003 0008 6553f100 0001e240"
    "0004 0005 01 e82bd3ea"  # the family is one byte
    "0005 0000"  # asks for the version
    "0007 0002 03e8"  # wants 1000 bytes
)
OLD_ANSWER = b"A" + OLD_QUERY[1:]
OLD_BARE = b"Q"
MEASURE = bytes.fromhex(
    "fd 0000000102 0001 0008 0102030405060708 000b 0008 0000000000000000 0004 0006 0001 e82bd3ea"
    "000a 0004 0001 08 e8 fffb 0007 000003e8 0000 01 fffc 0000 fffc 0006 26af 0a000003"
)
REPORT = bytes.fromhex(
    "fe 0000000102 0001 0008 0102030405060708 0002 0004 00000000 fffe 0004 00000007"
    "fffd 002a 01 00 00000005 00000005 00000004 00000000 00000064 00000065 000003e8 00000002 00000000 00000fa0"
)

FORMS = [value for name, value in list(globals().items()) if name.isupper() and isinstance(value, bytes)]
