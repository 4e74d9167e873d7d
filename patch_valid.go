package pgsession

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

const (
	// maxPatchDepth is how deep a patch may be nested: the server goes down into it by recursion.
	maxPatchDepth = 100
	// What PostgreSQL's numeric can hold: digits before the point, and after it.
	maxNumericDigits = 131_072
	maxNumericScale  = 16_383
)

// validatePatch refuses what the server would, by its name, and before the server's log shows a part of it.
func validatePatch(mergePatch []byte, maxSize int) error {
	if len(mergePatch) > maxSize {
		return fmt.Errorf("%w: the patch has %d bytes, at most %d", ErrTooLarge, len(mergePatch), maxSize)
	}
	switch {
	case !json.Valid(mergePatch):
		return fmt.Errorf("%w: the patch is not valid JSON", ErrInvalid)
	case !utf8.Valid(mergePatch): // which the former lets pass within strings
		return fmt.Errorf("%w: the patch is not valid UTF-8", ErrInvalid)
	}
	if i := loneSurrogate(mergePatch); i >= 0 {
		return fmt.Errorf(`%w: the patch has half a surrogate pair, \%s`, ErrInvalid, mergePatch[i+1:i+6])
	}
	written := len(mergePatch) // as jsonb writes it, at most
	decoder := json.NewDecoder(bytes.NewReader(mergePatch))
	decoder.UseNumber()
	for depth := 0; ; {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("%w: the patch: %w", ErrInvalid, err)
		}
		switch token := token.(type) {
		case json.Number:
			// jsonb writes 1e100000 out: nine bytes here would be so many there, before it finds them too many.
			if written += exponent(token); written > maxSize {
				return fmt.Errorf("%w: the patch's numbers, written out, have more than %d bytes", ErrTooLarge, maxSize)
			}
			if !isNumeric(token) {
				return fmt.Errorf("%w: the patch has a number beyond PostgreSQL's numeric", ErrInvalid)
			}
		case json.Delim:
			if token == '{' || token == '[' {
				depth++
			} else {
				depth--
			}
			if depth > maxPatchDepth {
				return fmt.Errorf("%w: the patch is nested deeper than %d", ErrInvalid, maxPatchDepth)
			}
		case string:
			if strings.IndexByte(token, 0) >= 0 {
				return fmt.Errorf(`%w: the patch has \u0000, which PostgreSQL's jsonb cannot hold`, ErrInvalid)
			}
		}
	}
}

// exponent is the magnitude of a number's exponent; of one that is out of any range, more than any size.
func exponent(number json.Number) int {
	n := signedExponent(number)
	return max(n, -n)
}

// signedExponent is the exponent; one that is out of any range is 1<<30, whatever its sign.
func signedExponent(number json.Number) int {
	i := strings.IndexAny(string(number), "eE")
	if i < 0 {
		return 0
	}
	n, err := strconv.ParseInt(string(number[i+1:]), 10, 32)
	if err != nil || n < -1<<30 || n > 1<<30 {
		return 1 << 30
	}
	return int(n)
}

// isNumeric reports whether a number, whose exponent is within an int, is one that numeric can hold.
func isNumeric(number json.Number) bool {
	mantissa, _, _ := strings.Cut(strings.ToLower(strings.TrimPrefix(string(number), "-")), "e")
	whole, fraction, _ := strings.Cut(mantissa, ".")
	n := signedExponent(number)
	if max(0, len(fraction)-n) > maxNumericScale {
		return false
	}
	digits := strings.TrimLeft(whole+fraction, "0")
	first := len(digits) - len(fraction) // how far the first digit that counts is before the point
	return digits == "" || first+n <= maxNumericDigits
}

// loneSurrogate is the index of the first escape of half a surrogate pair in valid JSON without the other
// half, or -1.
func loneSurrogate(text []byte) int {
	half := func(i int) rune { // of the escape at i, or 0
		if i+6 > len(text) || text[i] != '\\' || text[i+1] != 'u' {
			return 0
		}
		n, _ := strconv.ParseUint(string(text[i+2:i+6]), 16, 16)
		if r := rune(n); utf16.IsSurrogate(r) {
			return r
		}
		return 0
	}
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			continue
		}
		if r := half(i); r == 0 {
			i++ // what is escaped
		} else if utf16.DecodeRune(r, half(i+6)) == utf8.RuneError {
			return i
		} else {
			i += 11
		}
	}
	return -1
}
