// Makes deflate_go.golden, which tests/it/deflate_programs.rs compares our encoder with:
//
//	go run tests/it/deflate_go.go > tests/it/deflate_go.golden
//
// The golden file was made by Go 1.19. The notes of Go 1.8 and 1.27 say that these write other streams than the releases
// before them.
package main

import (
	"bytes"
	"compress/flate"
	"crypto/sha256"
	"fmt"
)

func noise(length int, state uint64) []byte {
	made := make([]byte, length)
	for at := range made {
		state ^= state << 13
		state ^= state >> 7
		state ^= state << 17
		made[at] = byte(state >> 24)
	}
	return made
}

func words(length int, seed uint64) []byte {
	letters := noise(4000, seed)
	var text []byte
	for _, pick := range noise(length, seed+1) {
		begin := int(pick) * int(pick%15)
		for _, letter := range letters[begin : begin+1+int(pick%13)] {
			text = append(text, 'a'+letter%24)
		}
		text = append(text, " \n,;"[pick%4])
		if len(text) >= length {
			break
		}
	}
	return text[:min(length, len(text))]
}

func min(one, other int) int {
	if one < other {
		return one
	}
	return other
}

// Each symbol about 1.6 times as often as the one before: codes of all lengths, and longer ones if they may be.
func rising(symbols int) []byte {
	var made []byte
	one, other := 1, 1
	for symbol := 0; symbol < symbols; symbol++ {
		made = append(made, bytes.Repeat([]byte{byte(symbol * 7)}, one)...)
		one, other = other, one+other
	}
	for at, pick := range noise(4*len(made), 77)[3*len(made):] {
		with := (at*251 + int(pick)) % len(made)
		made[at], made[with] = made[with], made[at]
	}
	return made
}

// A tar archive whose files end shortly before the window is full, and repeat what its farthest bytes are.
func tar(files int) [][]byte {
	base := noise(32700, 9)
	picks := noise(files*130, 10)
	var pieces [][]byte
	at := 0
	for file := 0; file < files; file++ {
		length := 32768 - 512 - 1 - file%260
		header := make([]byte, 512)
		copy(header, fmt.Sprintf("f%d", file))
		copy(header[124:], fmt.Sprintf("%011o", length))
		copy(header[257:], "ustar")
		content := make([]byte, length)
		for place := range content {
			content[place] = base[(at+512+place)%32700]
		}
		for _, pick := range picks[file*130 : (file+1)*130] {
			content[(int(pick)*131+file*7919)%length] ^= pick
		}
		pieces = append(pieces, header, content, make([]byte, (512-length%512)%512))
		at += 32768
	}
	return append(pieces, make([]byte, 512), make([]byte, 512))
}

func print(name string, levels []int, pieces ...[]byte) {
	for _, level := range levels {
		var made bytes.Buffer
		writer, err := flate.NewWriter(&made, level)
		if err != nil {
			panic(err)
		}
		for _, piece := range pieces {
			writer.Write(piece)
		}
		writer.Close()
		fmt.Printf("%s %d %d %x\n", name, level, made.Len(), sha256.Sum256(made.Bytes()))
	}
}

func main() {
	all := []int{-2, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9}
	mixed := append(words(90000, 5), noise(40000, 9)...)
	mixed = append(mixed, make([]byte, 70000)...)
	mixed = append(mixed, words(100000, 5)...)
	print("words", all, words(200000, 3))
	print("mixed", all, mixed)
	print("noise", all, noise(70000, 1))
	print("rising", all, rising(24))
	for _, length := range []int{0, 1, 3, 4, 16, 17, 127, 128, 262, 65274, 65535, 65536, 65537, 131070} {
		print(fmt.Sprintf("words-%d", length), []int{-2, 1, 2, 6}, words(length, 2))
		print(fmt.Sprintf("zeros-%d", length), []int{-2, 1, 2, 6}, make([]byte, length))
	}
	long := bytes.Repeat(append(words(300000, 7), noise(30000, 8)...), 54)
	print("long", []int{1, 2, 6}, long)
	print("tar", []int{1, 2, 4, 6, 9}, tar(150)...)
	print("whole-tar", []int{1, 2, 4, 6, 9}, bytes.Join(tar(150), nil))
}
