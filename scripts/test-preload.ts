// Loaded before every test file. Node tells tests to colour what they print where it prints to a terminal itself.
delete process.env.FORCE_COLOR;
