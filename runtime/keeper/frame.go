package keeper

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
)

// Version is the protocol's version. A keeper that speaks another one is
// replaced by exec in place once it may be (see OpUpgrade).
const Version = 1

// Limits of one message: bytes of a frame, and descriptors beside it.
const (
	MaxFrame = 64 << 10
	MaxFiles = 8
)

// Op says what a frame asks, answers or tells.
type Op uint8

// The requests, and the events (from opEvent on) that the keeper sends
// unasked. A reply has its request's Op.
const (
	OpHello Op = iota + 1
	OpRun
	OpExec
	OpAttach
	OpCloseStdin
	OpReopen
	OpForget
	OpAdopt
	OpList
	OpHandles
	OpReaped
	OpUpgrade
	OpSeccomp
	opLastRequest

	OpExited     Op = 0x40
	OpExecExited Op = 0x41
	OpOOM        Op = 0x42
	OpDetached   Op = 0x43
	OpMade       Op = 0x44
	opLastEvent  Op = 0x45
)

// Header is the fixed part of a frame.
//
//	0  'K' 'f'   magic
//	2  version   of the sender
//	3  op
//	4  seq       uint32, little endian; 0 in events
//	8  flags     bit 0: reply, bit 1: the body is a Failure
//	9  0 0 0     reserved, must be zero
//	12 body      JSON, to the end of the message
type Header struct {
	Version uint8
	Op      Op
	Seq     uint32
	Reply   bool
	Failed  bool
}

const headerSize = 12

// ErrFrame marks a message that is not a frame of this protocol.
var ErrFrame = errors.New("not a keeper frame")

// EncodeFrame renders a frame with body as JSON; a nil body is left out.
func EncodeFrame(h Header, body any) ([]byte, error) {
	buf := make([]byte, headerSize, 256)
	buf[0], buf[1], buf[2], buf[3] = 'K', 'f', h.Version, byte(h.Op)
	binary.LittleEndian.PutUint32(buf[4:], h.Seq)
	if h.Reply {
		buf[8] |= 1
	}
	if h.Failed {
		buf[8] |= 2
	}
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encode frame op %d: %w", h.Op, err)
		}
		buf = append(buf, text...)
	}
	if len(buf) > MaxFrame {
		return nil, fmt.Errorf("encode frame op %d: %d bytes exceed %d", h.Op, len(buf), MaxFrame)
	}
	return buf, nil
}

// DecodeFrame checks a message and splits it. The body aliases msg.
func DecodeFrame(msg []byte) (Header, json.RawMessage, error) {
	if len(msg) < headerSize || len(msg) > MaxFrame {
		return Header{}, nil, fmt.Errorf("%w: %d bytes", ErrFrame, len(msg))
	}
	if msg[0] != 'K' || msg[1] != 'f' {
		return Header{}, nil, fmt.Errorf("%w: magic %x", ErrFrame, msg[:2])
	}
	if msg[8]&^3 != 0 || msg[9] != 0 || msg[10] != 0 || msg[11] != 0 {
		return Header{}, nil, fmt.Errorf("%w: reserved bits set", ErrFrame)
	}
	h := Header{
		Version: msg[2],
		Op:      Op(msg[3]),
		Seq:     binary.LittleEndian.Uint32(msg[4:]),
		Reply:   msg[8]&1 != 0,
		Failed:  msg[8]&2 != 0,
	}
	request := h.Op >= OpHello && h.Op < opLastRequest
	event := h.Op >= OpExited && h.Op < opLastEvent
	if !request && !event {
		return Header{}, nil, fmt.Errorf("%w: op %d", ErrFrame, h.Op)
	}
	body := json.RawMessage(msg[headerSize:])
	if len(body) > 0 && !json.Valid(body) {
		return Header{}, nil, fmt.Errorf("%w: body is not JSON", ErrFrame)
	}
	return h, body, nil
}
