/*
 * The rules that shieldd ships: few, and each sure of what it says. `quarantine = true` lets the guard take the file
 * away; without it a match is an alert. Sites add files of their own beside this one ([guard] yara_rules).
 */

rule eicar_test_file
{
    meta:
        text = "EICAR anti-malware test file"
        quarantine = true
        attack = "T1204.002"
    strings:
        $eicar = "X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
    condition:
        $eicar at 0 and filesize <= 128
}

rule ransom_note_text
{
    meta:
        text = "text of a ransom note"
        quarantine = true
        attack = "T1486"
    strings:
        $done1 = "files have been encrypted" nocase ascii wide
        $done2 = "files are encrypted" nocase ascii wide
        $done3 = "files were encrypted" nocase ascii wide
        $done4 = "network has been encrypted" nocase ascii wide
        $back1 = "decryption key" nocase ascii wide
        $back2 = "private key" nocase ascii wide
        $back3 = "decryptor" nocase ascii wide
        $back4 = "decrypt your files" nocase ascii wide
        $back5 = "recover your files" nocase ascii wide
        $pay1 = "bitcoin" nocase ascii wide
        $pay2 = "monero" nocase ascii wide
        $pay3 = ".onion" nocase ascii wide
        $pay4 = "tor browser" nocase ascii wide
        $pay5 = "ransom" nocase ascii wide fullword
    condition:
        filesize <= 64KB and any of ($done*) and any of ($back*) and any of ($pay*)
}

rule elf_under_document_extension
{
    meta:
        text = "Linux executable under the extension of a document"
        quarantine = true
        attack = "T1036.008"
    condition:
        document and uint32be(0) == 0x7f454c46 and (uint16(16) == 2 or uint16(16) == 3)
}

rule pe_under_document_extension
{
    meta:
        text = "Windows executable under the extension of a document"
        quarantine = true
        attack = "T1036.008"
    condition:
        document and uint16(0) == 0x5a4d and uint32(0x3c) < filesize and uint32(uint32(0x3c)) == 0x00004550
}
